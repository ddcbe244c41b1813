"""What an audit could disturb, hashed before and after and put back."""
